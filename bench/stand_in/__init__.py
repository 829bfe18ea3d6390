"""Services that stand for a router, in processes of their own: `python -m bench.stand_in`, `bench.echo`."""

from bench.stand_in.service import ServiceProcess, serve, stand_in

__all__ = ["ServiceProcess", "serve", "stand_in"]
