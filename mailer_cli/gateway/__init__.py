"""The gateway as the program sees it: one method, `send()`, and what its answers mean.

Two rules carry the rest: a message was certainly not sent only while nobody has asked for the first byte
of its body, and it was certainly taken only when the answer is exactly a 2xx with the JSON object that says
code 0. What lies between is unknown.

    client.py       Gateway.send(): one message, its deadline, its repeats
    connection.py   httpx over aiohttp: what carries a request
    resolver.py     a host's addresses
    failure.py      an exchange that broke off -> its class
    answer.py       a whole answer -> its class; light, for all who only read answers
"""

from mailer_cli.gateway.answer import Answer, judge

__all__ = ["Answer", "judge"]
