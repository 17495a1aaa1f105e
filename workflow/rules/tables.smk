# Result tables: what the user came for.


rule tables:
    input:
        unpack(JOBS.inputs("tables")),
    output:
        figures=report(directory(AT.figures), patterns=["{figure}.svg"], category="Figures"),
        **(AT.result_files() | {"report": report(AT.result_files()["report"], category="Tables")}),
    log:
        AT.log("tables"),
    benchmark:
        AT.benchmark("tables")
    shell:
        "distillery run {input.spec} --log {log}"
