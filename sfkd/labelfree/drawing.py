"""What a teacher and its student see in the same pictures."""
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..connectors import map_of
from ..distillation import Distillation
from ..distillation.pair import Pair
from .crops import as_tensor

TILE, GAP, TITLE = 128, 4, 16  # pixels
CELLS = 7  # a side, below which nobody sees a shape in a map


@torch.no_grad()
def draw_features(student: nn.Module, companion: Distillation, shown: list[Image.Image], pictures: Tensor,
                  file: str | Path) -> None:
    """Draw pictures beside the teacher's features and the student's, as colours: the three principal components of the
    teacher's map of a pair, and what the pair compares with it of the student's on the same three. The pair is the
    deepest with enough cells to see something.

    Args:
        student, companion: as they were trained; the student is in eval mode afterwards.
        shown: the pictures.
        pictures: (N, 3, H, W), the same, as normalised for the student.
        file: of the picture.
    """
    student.eval()
    pair = shown_pair([pair for pair in companion.pairs if not pair.teacher_stage.is_scores])
    theirs = companion.teacher(pictures)
    with companion.taps.capture(pictures.shape[2:]) as ours:
        student(pictures)
    connected = pair.connect(ours[pair.student_path], theirs[pair.teacher_path])
    student_map, teacher_map = map(map_of, connected)
    columns = [('picture', torch.stack([as_tensor(x) for x in shown])), ('teacher', colours(teacher_map, teacher_map)),
               ('student', colours(student_map, teacher_map))]
    sheet = Image.new('RGB', (len(columns) * (TILE + GAP) - GAP, TITLE + len(shown) * (TILE + GAP) - GAP), 'white')
    for x, (title, tiles) in enumerate(columns):
        ImageDraw.Draw(sheet).text((x * (TILE + GAP), 2), title, 'black')
        for y, tile in enumerate(F.interpolate(tiles.float(), (TILE, TILE)).byte()):
            sheet.paste(Image.fromarray(tile.permute(1, 2, 0).cpu().numpy()),
                        (x * (TILE + GAP), TITLE + y * (TILE + GAP)))
    sheet.save(file)


def shown_pair(pairs: list[Pair]) -> Pair:
    """The deepest of some pairs of maps with enough cells to see something; where none has, that with the most."""
    def cells(pair: Pair) -> int:
        return min(side for stage in pair.stages for side in stage.grid)
    return next((pair for pair in reversed(pairs) if cells(pair) >= CELLS), max(pairs, key=cells))


def colours(map: Tensor, reference: Tensor) -> Tensor:
    """A map (N, C, h, w) as pictures (N, 3, h, w), uint8: its places on the three principal axes of a reference, of
    which a part from the 2nd to the 98th percentile is a colour's range.
    """
    def cells(x: Tensor) -> Tensor:
        return x.float().movedim(1, 3).flatten(0, 2)                     # (N h w, C)
    mean = cells(reference).mean(0)
    axes = torch.linalg.svd(cells(reference) - mean, full_matrices=False).Vh[:3].mT  # (C, 3)
    low, high = torch.quantile((cells(reference) - mean) @ axes, torch.tensor([0.02, 0.98], device=map.device), dim=0)
    values = ((cells(map) - mean) @ axes - low) / (high - low).clamp(min=1e-6)
    n, _, h, w = map.shape
    return (255 * values.clamp(0, 1)).byte().view(n, h, w, 3).movedim(3, 1)
