"""What is generated from `inference.proto`, and the module that makes messages of it."""
