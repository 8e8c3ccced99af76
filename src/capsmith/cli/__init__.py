"""The command line: one file a command group, one thin function a command.

Modules here import the rest of capsmith inside functions, so that `capsmith --help` answers at
once and needs neither onnxruntime nor the models.
"""
