# COCO, RetinaNet R101 to RetinaNet R50 (the homogeneous case): bash tools/dist_train.sh configs/sfkd/det_retinanet_r101_to_retinanet_r50.py 8
# Total batch 8 x 2 = 16, the student's own 1x schedule (12 epochs, SGD). Not run to the end by this project: no AP is claimed.
# Both heads share classes and anchors, so the class maps are distilled too, channel by channel (CWD, arXiv 2011.13256).
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    pairs=['auto'] + [dict(student=level, teacher=level, connector=None,
                           losses=[dict(type='ChannelWiseDivergence', name='cwd', weight=0.02)])
                      for level in ('bbox_head.retina_cls[0]', 'bbox_head.retina_cls[1]', 'bbox_head.retina_cls[2]')],
    teacher='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
    teacher_ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
                 'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth')
