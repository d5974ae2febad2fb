"""python -m example.demo.load: drive the site for a while and print what was seen, as JSON.

A process of its own, so that its Python never waits for the driver's, nor the other way round.
"""

import argparse
import random
import threading
import time
from collections.abc import Sequence

from example.demo.facts import Load
from example.demo.visitor import Shop, Visitor


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    shop = Shop(options.port, options.products, options.customers)
    visitors = [
        Visitor(shop, random.Random(f"{options.seed} {number}"))
        for number in range(options.clients)
    ]
    print(drive(visitors, options.lead_in, options.seconds).to_json())


def drive(visitors: Sequence[Visitor], lead_in: float, seconds: float) -> Load:
    """Let all visitors in at once; blocks until the last has its last answer."""
    started, cpu = time.monotonic(), time.process_time()
    for visitor in visitors:
        visitor.measured_from = started + lead_in
        visitor.until = started + lead_in + seconds
    threads = [threading.Thread(target=visitor.run) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    share = (time.process_time() - cpu) / (time.monotonic() - started)
    return _together(visitors, seconds, share)


def _together(visitors: Sequence[Visitor], seconds: float, cpu_share: float) -> Load:
    load = Load(seconds=seconds, cpu_share=cpu_share)
    for visitor in visitors:
        load.latencies_ms += visitor.load.latencies_ms
        load.answers += visitor.load.answers
        load.errors += visitor.load.errors
        load.orders += visitor.load.orders
    return load


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m example.demo.load")
    for name in ("port", "products", "customers", "clients"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("lead-in", "seconds"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--seed", required=True)
    return parser


if __name__ == "__main__":
    main()
