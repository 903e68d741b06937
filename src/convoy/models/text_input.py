"""Token ids -> word vectors, some words hidden in training; the first layer of every text model."""

import torch
from torch import Tensor, nn


class WordVectors(nn.Module):
    """An embedding in which padding is the zero vector.

    `word_dropout` hides whole words (Dai & Le 2015, arXiv:1511.01432), so that no single word is relied upon;
    `dropout` hides single numbers.
    """

    def __init__(self, vocabulary: int, size: int, pad_id: int, word_dropout: float, dropout: float) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.embed = nn.Embedding(vocabulary, size, padding_idx=pad_id)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, size)."""
        vectors = self.embed(tokens)
        if self.training and self.word_dropout:
            kept = torch.rand(tokens.shape, device=tokens.device) >= self.word_dropout
            vectors = vectors * kept.unsqueeze(2) / (1 - self.word_dropout)
        dropped: Tensor = self.dropout(vectors)
        return dropped
