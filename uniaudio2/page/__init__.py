"""The page of a model: every section of the reference page and more, to hear, see and judge."""

from uniaudio2.page.build import build_page, model_identity
from uniaudio2.page.items import Item, Sound
from uniaudio2.page.plan import choose_items, run_demo
from uniaudio2.page.record import Piece, Record
from uniaudio2.page.sections import SECTIONS, Section, demo_sections, find_sections
from uniaudio2.page.site import Plan, Site

__all__ = [
    "SECTIONS",
    "Item",
    "Piece",
    "Plan",
    "Record",
    "Section",
    "Site",
    "Sound",
    "build_page",
    "choose_items",
    "demo_sections",
    "find_sections",
    "model_identity",
    "run_demo",
]
