"""What `python -m benchmarks` measures, along the road of one figure:

sink.py         the gateway that is always fast: nginx on loopback, whose log counts what was accepted
peers/          other ways to do the same work, each in processes of its own
ours.py         `mailer dispatch` over a prepared database
measure.py      one round: processes, seconds, CPU, memory, and whether all messages can be found again
speed.py        dispatch beside its peers, with latency, two at once, in memory, in the database
rate.py         the rate in every second, by the sink's log
scale.py        the tables of `--full`: messages, requests in flight, latency
table.py        rows and how they are printed
machine.py      what it ran on
__main__.py     options, order, printing
"""
