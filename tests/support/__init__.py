"""The harness of the end-to-end tests: a real Caddy, real workers, and the check after each test.

A test asks for one of two fixtures of conftest.py; both are a `Servers` (check.py), and calling it gives a `Server`
(server.py) that is ready:

- `serve(site)` starts a server for this test alone and ends it after the test.
- `serve_shared(site, warm_up="/")` starts one for all tests of a module, usually in a module-scoped fixture. For a
  module that has a SITE, `plain` and `secure` are such servers, over HTTP/1.1 and over TLS and HTTP/2.

`site` is the inside of a Caddyfile site block. In a `python` block, `import worker` stands for the interpreter and the
runtime that the suite is run with, and for `working_dir` tests/apps; `import interpreter` for all but working_dir,
`import process` for what cannot be a thread:

    def test_hello(serve: Servers) -> None:
        server = serve("python {\n module_wsgi hello:app \n import worker \n}")
        assert server.get("/").text == "hello"

After each test a server that goes on has no more processes, descriptors and temporary files than before, and no error
entry in its log but those that the test announced with `@pytest.mark.expect_errors("part of the entry", ...)`. A server
that ends must end with status 0, unless the test itself has waited for its end (`wait_exit`), and leave no process and
no temporary file. No test has to ask for these checks.

What an ordinary client does not do, raw.py (HTTP/1.1) and http2.py do by hand. cases.py talks to the conformance apps,
memory.py watches processes grow, and siege.py says how much of a long test to run, and what on each Python.

No test sleeps: `wait_until` (polling.py) and `Log.wait_for` (log.py) poll with a deadline.
"""
