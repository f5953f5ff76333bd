"""The rows of the table of corpora, data alone: one file for the paper's nine, one for English,
one for Europe's other languages and America's, one for those of Asia and Africa.

Only `corpora.table` may import these.
"""
