"""What routing costs: every part beside its baseline, measured in the same run, and beside what no code can be below.

    projected-grpo bench --preset Qwen3-4B

`run.measure` runs the groups that are asked for and returns a report of rows; `shapes` knows the models, `baselines`
the straightforward code that parts are measured against, `counts` what does not depend on the machine: operator calls.
"""
