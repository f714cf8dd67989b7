"""Perfusion (Tewel et al. 2023, arXiv 2305.01644): a concept is a gated rank-one edit of cross-attention."""
