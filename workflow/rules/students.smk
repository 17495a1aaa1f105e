# Students: one job per pair, method and entry of `seeds` in params.yaml.


rule distill:
    input:
        unpack(JOBS.inputs("distill")),
    output:
        weights=AT.students("{pair}", "{method}", "{seed}"),
        history=AT.history("{pair}", "{method}", "{seed}"),
        record=AT.run_record("{pair}", "{method}", "{seed}"),
    log:
        AT.log("distill", "{pair}", "{method}", "{seed}"),
    benchmark:
        AT.benchmark("distill", "{pair}", "{method}", "{seed}")
    shell:
        "distillery run {input.spec} --log {log}"


rule evaluate:
    input:
        unpack(JOBS.inputs("evaluate")),
    output:
        record=AT.metrics("{pair}", "{method}", "{seed}"),
        predictions=AT.predictions("{pair}", "{method}", "{seed}"),
    log:
        AT.log("evaluate", "{pair}", "{method}", "{seed}"),
    benchmark:
        AT.benchmark("evaluate", "{pair}", "{method}", "{seed}")
    shell:
        "distillery run {input.spec} --log {log}"
