# Result tables: what the user came for.


rule tables:
    input:
        metrics=[AT.metrics(*cell) for cell in STUDY.cells()],
        pairs=[AT.pair(pair) for pair in STUDY.pairs],
        code=code_files("tables"),
    output:
        figures=directory(AT.figures),
        **AT.table_files(),
    params:
        tracked=tracked("tables", RAW),
    log:
        AT.log("tables"),
    benchmark:
        AT.benchmark("tables")
    shell:
        "distillery tables > {log} 2>&1"
