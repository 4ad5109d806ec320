"""The sentence model all-MiniLM-L6-v2: fetch it once, then turn English texts into vectors on this machine's processor.

release    what exactly is fetched, and the hashes it must have
install    fetch, check, convert and put in place
installed  is it there, and where
encoder    texts to vectors, one loaded model for the whole process

Importing this package costs nothing; the parts that need numpy, onnx, onnxruntime or tokenizers import them
when they run.
"""
