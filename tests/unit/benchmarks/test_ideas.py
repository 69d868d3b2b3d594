from collections import Counter
from pathlib import Path

import engine
from benchmarks.ideas import Watch, types_in

ENGINE = Path(engine.__file__).parent


def test_no_type_name_of_the_engine_is_defined_twice():
    names = Counter(types_in(ENGINE, (str(path.relative_to(ENGINE)) for path in ENGINE.rglob("*.py"))))
    assert [name for name, times in names.items() if times > 1] == []


def test_functions_of_the_folder_are_noted_and_no_others_nor_the_bodies_of_classes():
    def inner():
        class Body:
            pass

        return [number for number in range(2)]  # noqa: C416 - older versions enter a function for it

    watch = Watch(Path(__file__).parent)
    with watch.noting() as entered, watch.everywhere():
        inner()
        Counter()
    names = {name.rpartition(".")[2] for _, name in entered}
    assert "inner" in names
    assert names <= {"inner", "<listcomp>"}
