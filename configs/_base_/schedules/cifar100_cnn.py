# CNN students on CIFAR-100: 300 epochs, total batch 8 x 128. The recipe of heterogeneous distillation (OFA-KD's configs/cifar/cnn.yaml);
# start of the warm-up, Nesterov momentum and no decay on norms and biases are timm's defaults, which it trains with
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=2e-3),
                     paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=2e-3, by_epoch=True, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-3, by_epoch=True, begin=3, end=300, T_max=297, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
