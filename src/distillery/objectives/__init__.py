"""Training losses, one file each. `OBJECTIVES` names them; importing this package imports none of them."""

from __future__ import annotations

from distillery.registry import Registry

_HERE = "distillery.objectives"

OBJECTIVES = Registry(
    "objective",
    f"{_HERE}.base:Objective",
    {
        name: f"{_HERE}.{target}"
        for name, target in {
            "adain": "adain:AdaIN",
            "at": "at:AT",
            "cat_kd": "cat_kd:CATKD",
            "cc": "cc:CC",
            "ce": "ce:CE",
            "clkd": "clkd:CLKD",
            "crd": "crd:CRD",
            "ctkd": "ctkd:CTKD",
            "deit": "deit:DeiT",
            "dist": "dist:DIST",
            "dkd": "dkd:DKD",
            "ensemble": "ensemble:Ensemble",
            "fitnet": "fitnet:FitNet",
            "itrd": "itrd:ITRD",
            "kd": "kd:KD",
            "kdsvd": "kdsvd:KDSVD",
            "label_revision": "label_revision:LabelRevision",
            "mlkd": "mlkd:MLKD",
            "mlkd_levels": "mlkd_levels:MLKDLevels",
            "mlkd_single": "mlkd_single:MLKDSingle",
            "nst": "nst:NST",
            "ofd": "ofd:OFD",
            "pkt": "pkt:PKT",
            "rc": "rc:RC",
            "reviewkd": "reviewkd:ReviewKD",
            "rkd": "rkd:RKD",
            "rld": "rld:RLD",
            "simkd": "simkd:SimKD",
            "sp": "sp:SP",
            "staged": "staged:Staged",
            "ttm": "ttm:TTM",
            "vid": "vid:VID",
            "vkd": "vkd:VkD",
            "vkd_tokens": "vkd_tokens:VkDTokens",
            "wttm": "wttm:WTTM",
        }.items()
    },
    elsewhere={
        "gan": "distillery.tasks.generation.objectives.base:GAN",
        "kd_dlgan": "distillery.tasks.generation.objectives.kd_dlgan:KDDLGAN",
        "vkd_gan": "distillery.tasks.generation.objectives.vkd:VkDGAN",
        "bpr": "distillery.tasks.ranking.objectives.bpr:BPR",
        "cd": "distillery.tasks.ranking.objectives.cd:CD",
        "detect": "distillery.tasks.detection.objectives.base:Detect",
        "fgd": "distillery.tasks.detection.objectives.maps:FGD",
        "ikd": "distillery.tasks.detection.objectives.ikd:IKD",
        "mgd": "distillery.tasks.detection.objectives.maps:MGD",
        "double": "distillery.tasks.retrieval.objectives.double:Double",
        "one_stratum": "distillery.tasks.ranking.objectives.unkd:OneStratum",
        "ova": "distillery.tasks.retrieval.objectives.ova:OVA",
        "ova_kd": "distillery.tasks.retrieval.objectives.ova_kd:OVAKD",
        "rd": "distillery.tasks.ranking.objectives.rd:RD",
        "rrd": "distillery.tasks.ranking.objectives.rrd:RRD",
        "token_matching": "distillery.tasks.detection.objectives.tokens:TokenMatching",
        "unkd": "distillery.tasks.ranking.objectives.unkd:UnKD",
        "vkd_detection": "distillery.tasks.detection.objectives.tokens:VkDTokenPools",
    },
)
