# InfoNCE on the refined bands, in the place of both of SFKD's terms: what the paper's ablation (arXiv 2607.01906) has beside MSE and GFFL
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='WaveletConnector', levels=2, refine=True),
    losses=[dict(type='BandInfoNCE', name='infonce', weight=1.0, temperature=0.1)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
