"""Other systems, and ours, behind two protocols, so that all are scored alike: `CodecSystem` and `SpeechSystem`.

A system is one file in `uniaudio2.systems.adapters`, or a file of one's own.
"""

from uniaudio2.systems.contract import Card, CodecSystem, SpeechSystem, StoredSystem, System
from uniaudio2.systems.registry import SYSTEMS, Spec, load_system, parse_systems

__all__ = [
    "SYSTEMS",
    "Card",
    "CodecSystem",
    "Spec",
    "SpeechSystem",
    "StoredSystem",
    "System",
    "load_system",
    "parse_systems",
]
