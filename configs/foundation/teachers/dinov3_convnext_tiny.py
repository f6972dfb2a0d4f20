# DINOv3 ConvNeXt-T, strides 4 to 32, pictures of any size. Its licence is Meta's own
foundation = dict(type='sfkd.TimmTeacher', name='convnext_tiny.dinov3_lvd1689m', pretrained=True)
