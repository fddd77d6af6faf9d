"""The steps of one run, as pipelines/distill.py takes them.

`command` (with `preflight`: `banner`, `recipe`, `plan`, `resources`, `disk`), then the `phases`: `teacher`; `search`
where a speed was asked for (`shape_speeds`, `trial`), `attention_fit` where mechanisms are to be found,
`copies_choice` where copies are; `stages` (`student`, `width`, `stage_texts`, `shared_stages`); `baseline`;
`comparison`; `publish`. `phase` ends each of them, `context` is what all of them read. `api` is the way in from
Python; `exports` and `exported_run` serve pipelines/export.py.
"""
