"""The program inside `kubewright check`'s pods: `serve` answers who it is, `run` asks others and tells.

It uses the standard library, and dnspython once a name is to be resolved: a check starts it on each node, so
it must start fast. Threads do, as a check waits for others nearly all of its time.

`run` reads one line from standard input, a JSON list of checks, and writes one line, a JSON list of results
in the same order. (One line, because an exec over the API cannot close standard input.) A check is tried
again until it succeeds or its `timeout` (seconds, default 2) is over:

    {"id": "1", "kind": "http", "url": "http://10.244.1.5:8080/", "expect_node": "w1", "timeout": 2.0}
    {"id": "2", "kind": "dns", "name": "web.default.svc.cluster.local", "type": "A", "expect": ["10.96.0.9"]}
    {"id": "3", "kind": "api", "by": ["address", "name"]}

`expect_pod`, `expect_node`, `expect` and `by` may be left out; `tries` may say after how many to give up. A
result is `{"id": …, "ok": true, "seconds": 0.004, "tries": 1, "detail": "…", "answer": {…}}`; `answer` is what
an http check got.
"""
