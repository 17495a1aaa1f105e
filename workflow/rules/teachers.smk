# Data and teachers: everything that is done once, before any student.


rule data:
    input:
        unpack(JOBS.inputs("data")),
    output:
        record=AT.data,
        arrays=AT.arrays,
        blob=AT.blob,
    log:
        AT.log("data"),
    benchmark:
        AT.benchmark("data")
    shell:
        "distillery run {input.spec} --log {log}"


rule teacher:
    localrule:
        # Released teachers come from the internet, which compute nodes often cannot reach.
        JOBS.only_fetched
    input:
        unpack(JOBS.inputs("teacher")),
    output:
        weights=AT.teacher("{teacher}"),
        history=AT.teacher_history("{teacher}"),
        record=AT.teacher_record("{teacher}"),
    log:
        AT.log("teacher", "{teacher}"),
    benchmark:
        AT.benchmark("teacher", "{teacher}")
    shell:
        "distillery run {input.spec} --log {log}"


rule cache:
    input:
        unpack(JOBS.inputs("cache")),
    output:
        table=AT.view_table("{teacher}"),
        record=AT.view_table_record("{teacher}"),
    log:
        AT.log("cache", "{teacher}"),
    benchmark:
        AT.benchmark("cache", "{teacher}")
    shell:
        "distillery run {input.spec} --log {log}"


rule pair:
    input:
        unpack(JOBS.inputs("pair")),
    output:
        pair=AT.pair("{pair}"),
        teachers=AT.pair_teachers("{pair}"),
        record=AT.pair_record("{pair}"),
    log:
        AT.log("pair", "{pair}"),
    benchmark:
        AT.benchmark("pair", "{pair}")
    shell:
        "distillery run {input.spec} --log {log}"
