"""A child process: what torch's own forward and in-process ONNX Runtime answer to the sentences given as arguments.

Works on what the upload script used and left in the current folder; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
import torch
from transformers import DistilBertForSequenceClassification, DistilBertTokenizer

tokenizer = DistilBertTokenizer.from_pretrained("distilbert-base-uncased")
model = DistilBertForSequenceClassification.from_pretrained("distilbert-base-uncased")
session = onnxruntime.InferenceSession("distilbert-base-uncased.onnx", providers=["CPUExecutionProvider"])
answers = []
for sentence in sys.argv[1:]:
    ids = tokenizer(sentence, padding="max_length", max_length=8)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    (output,) = session.run(["output"], {"input": np.array([ids], np.int64)})
    answers.append({"ids": ids, "torch": logits.flatten().tolist(), "onnxruntime": output.flatten().tolist()})
print(json.dumps(answers))
