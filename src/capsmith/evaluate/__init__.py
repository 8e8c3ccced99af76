"""How good captions are: tokenisation, CIDEr-D, BLEU, ROUGE-L and their intervals."""
