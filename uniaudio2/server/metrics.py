"""Figures for Prometheus, each server's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters, gauges and histograms."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        name = "uniaudio2_"
        self.requests = Counter(
            name + "requests", "Answers by route and status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            name + "request_seconds", "From request to end of answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self.first_byte = Histogram(
            name + "first_byte_seconds",
            "From request to its first byte",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.sessions = Gauge(name + "sessions", "Sockets that are open", ["route"], registry=registry)
        self.session_seconds = Histogram(
            name + "session_seconds", "How long a socket was open", ["route"], buckets=_SECONDS, registry=registry
        )
        self.running = Gauge(name + "running", "Requests that are worked on", registry=registry)
        self.refused = Counter(name + "refused", "Requests refused because too many waited", registry=registry)
        self.audio_out = Counter(name + "audio_made_seconds", "Seconds of audio made", registry=registry)
        self.audio_in = Counter(name + "audio_heard_seconds", "Seconds of audio received", registry=registry)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
