# COCO, DINO 4-scale R50 to GFL R18 (query-based to dense, through the necks): bash tools/dist_train.sh configs/sfkd/det_dino_r50_to_gfl_r18.py 8
# Total batch 8 x 2 = 16, the student's own 1x schedule (12 epochs, SGD). Not run to the end by this project: no AP is claimed.
_base_ = ['students/gfl_r18.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v3.0/dino/dino-4scale_r50_8xb2-12e_coco/'
                 'dino-4scale_r50_8xb2-12e_coco_20221202_182705-55b2bba2.pth')
