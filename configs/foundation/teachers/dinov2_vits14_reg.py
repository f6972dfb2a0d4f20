# DINOv2 ViT-S/14 with four registers, at its own 518 px: 37x37 patches
foundation = dict(type='sfkd.TimmTeacher', name='vit_small_patch14_reg4_dinov2.lvd142m', pretrained=True, img_size=518)
