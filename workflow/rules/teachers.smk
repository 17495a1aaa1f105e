# Data and teachers: everything that is done once, before any student.


rule data:
    input:
        code=code_files("data"),
    output:
        arrays=AT.arrays,
        record=AT.data,
    params:
        tracked=tracked("data", RAW),
    log:
        AT.log("data"),
    benchmark:
        AT.benchmark("data")
    shell:
        "distillery data > {log} 2>&1"


rule teacher:
    localrule:
        # Released teachers come from the internet, which compute nodes often cannot reach.
        all(teacher.source == "fetch" and teacher.fallback == "none" for teacher in STUDY.teachers.values())
    input:
        arrays=rules.data.output.arrays,
        record=rules.data.output.record,
        code=code_files("teacher"),
    output:
        weights=AT.teacher("{teacher}"),
        record=AT.teacher_record("{teacher}"),
    params:
        tracked=lambda wildcards: tracked("teacher", RAW, **wildcards),
    log:
        AT.log("teacher", "{teacher}"),
    benchmark:
        AT.benchmark("teacher", "{teacher}")
    shell:
        "distillery teacher --teacher {wildcards.teacher} > {log} 2>&1"


rule cache:
    input:
        arrays=rules.data.output.arrays,
        record=rules.data.output.record,
        weights=rules.teacher.output.weights,
        teacher=rules.teacher.output.record,
        code=code_files("cache"),
    output:
        table=AT.table("{teacher}"),
        record=AT.table_record("{teacher}"),
    params:
        tracked=lambda wildcards: tracked("cache", RAW, **wildcards),
    log:
        AT.log("cache", "{teacher}"),
    benchmark:
        AT.benchmark("cache", "{teacher}")
    shell:
        "distillery cache --teacher {wildcards.teacher} > {log} 2>&1"


rule pair:
    input:
        teachers=lambda wildcards: [AT.teacher_record(t) for t in STUDY.pairs[wildcards.pair].teachers],
        tables=lambda wildcards: [AT.table_record(t) for t in STUDY.pairs[wildcards.pair].teachers],
        code=code_files("pair"),
    output:
        AT.pair("{pair}"),
    params:
        tracked=lambda wildcards: tracked("pair", RAW, **wildcards),
    log:
        AT.log("pair", "{pair}"),
    benchmark:
        AT.benchmark("pair", "{pair}")
    shell:
        "distillery pair --pair {wildcards.pair} > {log} 2>&1"
