"""Hugging Face Trainer: a classifier of transformers is taught by a model of timm.

python docs/examples/transformers_trainer.py --steps 100
"""
import argparse
from pathlib import Path

import timm
import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from sfkd import Distillation


class DistillationTrainer(Trainer):
    """A Trainer whose model has a companion. What it saves is the model, and the connectors in a file beside it."""

    def __init__(self, *args, teacher: torch.nn.Module, input_size: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # both losses are means over a batch
        self.distillation = Distillation(self.model, teacher, input_size=input_size).to(self.args.device)

    def create_optimizer(self, *args, **kwargs):
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.add_param_group(dict(params=list(self.distillation.parameters())))
        self.distillation = self.accelerator.prepare(self.distillation)
        return optimizer

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        with self.distillation(inputs['pixel_values']) as taught:
            loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
        return (loss + taught.loss, outputs) if return_outputs else loss + taught.loss

    def save_model(self, output_dir=None, _internal_call=False):
        super().save_model(output_dir, _internal_call)
        connectors = self.accelerator.unwrap_model(self.distillation).state_dict()
        self.accelerator.save(connectors, Path(output_dir or self.args.output_dir) / 'distillation.pth')

    def _load_from_checkpoint(self, folder, model=None):
        super()._load_from_checkpoint(folder, model)
        self.distillation.load_state_dict(torch.load(Path(folder) / 'distillation.pth', map_location='cpu'))


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--pretrained', action='store_true', help="the teacher's weights, from the Hub")
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--resume', help='a folder checkpoint-N')
    parser.add_argument('--out', default='trained')
    args = parser.parse_args()
    torch.manual_seed(0)
    student = ResNetForImageClassification(ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type='basic', num_labels=10))
    teacher = timm.create_model('convnext_atto', pretrained=args.pretrained)
    pictures = [dict(pixel_values=torch.randn(3, 64, 64), labels=i % 10) for i in range(32)]  # your data set here
    trainer = DistillationTrainer(student, TrainingArguments(
        args.out, max_steps=args.steps, per_device_train_batch_size=8, logging_steps=1, save_steps=2, report_to='none'),
        train_dataset=pictures, eval_dataset=pictures, teacher=teacher, input_size=64)
    trainer.train(resume_from_checkpoint=args.resume)
    print(trainer.evaluate())
    trainer.save_model()
