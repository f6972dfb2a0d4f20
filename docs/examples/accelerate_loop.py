"""Hugging Face Accelerate: the companion is prepared as the student is, so that both are wrapped in many processes.

accelerate launch docs/examples/accelerate_loop.py --steps 100
"""
import argparse
import itertools

import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

from sfkd import Distillation

parser = argparse.ArgumentParser()
parser.add_argument('--pretrained', action='store_true', help="the teacher's weights, from the Hub")
parser.add_argument('--precision', default='no', choices=['no', 'bf16', 'fp16'])
parser.add_argument('--accumulate', type=int, default=2)
parser.add_argument('--steps', type=int, default=100)
parser.add_argument('--out', default='accelerated')
args = parser.parse_args()

torch.manual_seed(0)
accelerator = Accelerator(mixed_precision=args.precision, gradient_accumulation_steps=args.accumulate)
pictures = TensorDataset(torch.randn(64, 3, 64, 64), torch.arange(64) % 10)  # your data set here
loader = DataLoader(pictures, 8, shuffle=True)
student = timm.create_model('resnet10t', num_classes=10)
distillation = Distillation(student, timm.create_model('convnext_atto', pretrained=args.pretrained), input_size=64)
optimizer = torch.optim.AdamW([*student.parameters(), *distillation.parameters()], lr=1e-3)
student, distillation, optimizer, loader = accelerator.prepare(student, distillation, optimizer, loader)

epochs = itertools.chain.from_iterable(itertools.repeat(loader))
for step, (images, labels) in enumerate(itertools.islice(epochs, args.steps)):
    with accelerator.accumulate(student, distillation):
        with distillation(images) as taught:
            loss = F.cross_entropy(student(images), labels)
        accelerator.backward(loss + taught.loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f'step {step}: task {loss.item():.4f}, taught {taught.loss.item():.4f}')
accelerator.save_state(args.out)  # to go on from: the student, the connectors, the optimizer
accelerator.save(accelerator.unwrap_model(student).state_dict(), f'{args.out}/student.pth')
