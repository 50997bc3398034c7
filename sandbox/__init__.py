"""Fake remote systems over real HTTP(S), for development, demos and tests.

A sandbox behaves as its vendor's documentation says the real system does: it issues tokens that expire,
caps pages, evaluates filters, checks ETags, throttles, and can be told to fail in the ways networks and
vendors fail. It is written from the documentation and imports nothing of the hub, so that a test against it
proves something.

    python -m sandbox dynamics365 --port 8950 --records 500

starts one system on loopback and prints its addresses and credentials as one line of JSON when it is ready.

Layout:
    frame.py       what every system shares: messages, faults, throttle, log of requests; knows no vendor
    store.py       its rows, with ordered versions, late commits and a clock
    app.py         puts a system into the frame: request in, response out, plain synchronous code
    control.py     the endpoint ``/_sandbox/...`` by which tests and people steer it
    server.py      carries an app over HTTP and HTTPS (aiohttp)
    samples.py     believable companies and people, seeded
    state.py       the file that keeps rows between runs
    testing.py     a sandbox in a thread and a raw HTTP client, for tests
    dynamics365/   the rules of Microsoft Dataverse
    odoo/          the rules of an Odoo server
    sales/         an app that takes webhooks

A system is a package with a class that has the members of ``app.System``. Because its rules are synchronous
functions over ``frame.Request`` and ``frame.Response``, a simulation can call them in process, without sockets.
"""
