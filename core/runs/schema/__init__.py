"""What run.json, metrics.json and the documents of additions hold, as far as anything reads them.

A module a document; core.runs.schema.checking tells where a document differs from its type. Keys
that are not named here may be anything; docs/artifacts.md says what each means.
"""
