# DINOv2 ViT-S/14, at 224 px: 16x16 patches
foundation = dict(type='sfkd.TimmTeacher', name='vit_small_patch14_dinov2.lvd142m', pretrained=True, img_size=224)
