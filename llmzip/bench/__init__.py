"""`llmzip bench`: archives beside those of other compressors, on files that the user names, all decoded and compared.

`contenders` says what is compared, `child` runs one of them in a process of its own, `measure` makes rows of what it
finds, `corpora` knows files by their digests, and `table`, `records` and `page` show the rows.
"""
