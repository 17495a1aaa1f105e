# Students: one job per pair, method and entry of `seeds` in params.yaml.


rule distill:
    input:
        arrays=rules.data.output.arrays,
        record=rules.data.output.record,
        pair=rules.pair.output,
        code=code_of_run,
    output:
        weights=AT.students("{pair}", "{method}", "{seed}"),
        record=AT.runs("{pair}", "{method}", "{seed}"),
    params:
        tracked=lambda wildcards: tracked("distill", RAW, **wildcards),
    group:
        sharing
    log:
        AT.log("distill", "{pair}", "{method}", "{seed}"),
    benchmark:
        AT.benchmark("distill", "{pair}", "{method}", "{seed}")
    shell:
        "distillery distill --pair {wildcards.pair} --method {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"


rule evaluate:
    input:
        arrays=rules.data.output.arrays,
        record=rules.data.output.record,
        pair=rules.pair.output,
        weights=rules.distill.output.weights,
        run=rules.distill.output.record,
        code=code_files("evaluate"),
    output:
        AT.metrics("{pair}", "{method}", "{seed}"),
    group:
        sharing
    log:
        AT.log("evaluate", "{pair}", "{method}", "{seed}"),
    benchmark:
        AT.benchmark("evaluate", "{pair}", "{method}", "{seed}")
    shell:
        "distillery evaluate --pair {wildcards.pair} --method {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"
