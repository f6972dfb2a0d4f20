"""Lightning: the checkpoint holds the student and the connectors, and no teacher.

python docs/examples/lightning_module.py --steps 100
"""
import argparse

import lightning
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from sfkd import Distillation

SIZE = 64


class Taught(lightning.LightningModule):
    """A student of ten classes and its companion; in data-parallel training Lightning wraps both as one."""

    def __init__(self, student: str = 'resnet10t', teacher: str = 'convnext_atto', pretrained: bool = False):
        super().__init__()
        self.save_hyperparameters()
        self.student = timm.create_model(student, num_classes=10)
        self.distillation = Distillation(self.student, timm.create_model(teacher, pretrained=pretrained),
                                         input_size=SIZE)

    def training_step(self, batch, index):
        images, labels = batch
        with self.distillation(images) as taught:
            loss = F.cross_entropy(self.student(images), labels)
        self.log_dict({'task': loss, 'taught': taught.loss, **taught.losses}, prog_bar=True)
        return loss + taught.loss

    def validation_step(self, batch, index):
        self.log('val', F.cross_entropy(self.student(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--pretrained', action='store_true', help="the teacher's weights, from the Hub")
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--out', default='taught.ckpt')
    args = parser.parse_args()
    lightning.seed_everything(0)
    pictures = TensorDataset(torch.randn(32, 3, SIZE, SIZE), torch.arange(32) % 10)  # your data set here
    trainer = lightning.Trainer(max_steps=args.steps, logger=False, enable_checkpointing=False)
    trainer.fit(Taught(pretrained=args.pretrained), DataLoader(pictures, 8, shuffle=True), DataLoader(pictures, 8))
    trainer.save_checkpoint(args.out)
    print({key: round(float(value), 4) for key, value in trainer.callback_metrics.items()})
