from __future__ import annotations

from llmzip_training.variants import VARIANTS, with_variants

STRIDE = 6


def test_one_document_in_six_is_changed() -> None:
    """Each kind of change in its turn; the others are as they were, and all for 0."""
    documents = [f"document {i}\n    of two lines\n" for i in range(STRIDE * 5)]
    found = list(with_variants(documents, STRIDE))
    changed = [i for i, (a, b) in enumerate(zip(documents, found, strict=True)) if a != b]
    assert changed == list(range(0, STRIDE * 5, STRIDE))
    assert [found[i] for i in changed] == [VARIANTS[turn % 4](documents[i]) for turn, i in enumerate(changed)]
    assert list(with_variants(documents, 0)) == documents
    assert found[0] == "document 0\r\n    of two lines\r\n"
    assert found[6] == "DOCUMENT 6\n    OF TWO LINES\n"
    assert found[12] == "document 12\n\tof two lines\n"
    assert found[18].startswith("document\n18\n")
