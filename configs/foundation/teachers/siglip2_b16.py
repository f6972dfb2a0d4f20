# SigLIP 2 ViT-B/16, at 224 px; mean and std 0.5
foundation = dict(type='sfkd.TimmTeacher', name='vit_base_patch16_siglip_224.v2_webli', pretrained=True)
