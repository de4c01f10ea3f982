"""A process that has composed and planned nothing yet, and one for which all files of data are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from experiments import assemble, compose, identity, remember, spec
from experiments.stages import evaluation, pretraining, sketch, stage
from mae.data.clips.sets import HMDB51, UCF101, ClipFolder, ClipList, SomethingSomething
from mae.data.keyframes.sets import AVA
from mae.data.pictures.folder import DecodedFolder, StreamedFolder
from mae.data.robustness.shifts import CorruptionFolders, Folder
from mae.data.source import DataSet


def forget() -> None:
    """Empty every cache of specs, stages and names."""
    for module in (assemble, compose, identity, spec, sketch, stage, evaluation, pretraining):
        for found in vars(module).values():
            if hasattr(found, "cache_clear"):
                found.cache_clear()
    compose._checked.clear()
    remember._memory.clear()


@contextmanager
def files_are_there() -> Iterator[None]:
    """Data sets of files hold whatever is asked of them, and are told apart by their fields; weights fit."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (DecodedFolder, StreamedFolder, ClipFolder, ClipList, SomethingSomething, UCF101, HMDB51, AVA):
            patch.setattr(kind, "reads", DataSet.reads)
            patch.setattr(kind, "holds", DataSet.holds)
        for shift in (Folder, CorruptionFolders):
            patch.setattr(shift, "identity", asdict)
        patch.setattr(evaluation, "check_weights", lambda *given: None)
        forget()
        yield
    forget()
