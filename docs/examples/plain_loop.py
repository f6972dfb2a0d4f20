"""One timm model teaches another in a plain loop, on a folder of pictures (a folder a class) or on random ones.

python docs/examples/plain_loop.py --folder path/of/train --pretrained --size 224 --steps 10000
"""
import argparse
import itertools

import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from sfkd import Distillation

parser = argparse.ArgumentParser()
parser.add_argument('--student', default='resnet10t')
parser.add_argument('--teacher', default='convnext_atto')
parser.add_argument('--pretrained', action='store_true', help="the teacher's weights, from the Hub")
parser.add_argument('--folder', help='pictures, a folder a class; none: random ones')
parser.add_argument('--size', type=int, default=64)
parser.add_argument('--batch', type=int, default=8)
parser.add_argument('--steps', type=int, default=100)
parser.add_argument('--out', default='student.pth')
args = parser.parse_args()

torch.manual_seed(0)
device = 'cuda' if torch.cuda.is_available() else 'cpu'
ours, theirs = (timm.get_pretrained_cfg(name) for name in (args.student, args.teacher))
look = v2.Compose([v2.ToImage(), v2.RandomResizedCrop(args.size), v2.RandomHorizontalFlip(),
                   v2.ToDtype(torch.float32, scale=True), v2.Normalize(ours.mean, ours.std)])
pictures = ImageFolder(args.folder, look) if args.folder else FakeData(64, (3, args.size, args.size), 10, look)
loader = DataLoader(pictures, args.batch, shuffle=True, drop_last=len(pictures) > args.batch)

student = timm.create_model(args.student, num_classes=len(pictures.classes) if args.folder else 10).to(device)
teacher = timm.create_model(args.teacher, pretrained=args.pretrained).to(device)
distillation = Distillation(student, teacher, input_size=args.size, student_mean=ours.mean, student_std=ours.std,
                            teacher_mean=theirs.mean, teacher_std=theirs.std).to(device)
print(distillation.summary())
optimizer = torch.optim.AdamW([*student.parameters(), *distillation.parameters()], lr=1e-3)

epochs = itertools.chain.from_iterable(itertools.repeat(loader))
for step, (images, labels) in enumerate(itertools.islice(epochs, args.steps)):
    images, labels = images.to(device), labels.to(device)
    with distillation(images) as taught:
        loss = F.cross_entropy(student(images), labels)
    optimizer.zero_grad()
    (loss + taught.loss).backward()
    optimizer.step()
    print(f'step {step}: task {loss.item():.4f}, taught {taught.loss.item():.4f}')
torch.save(student.state_dict(), args.out)
