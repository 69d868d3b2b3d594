import pytest

from engine.sandbox.settings import App, AppInput, FileRule

from .api import APP, PROJECT, behaviour, draft, error, files

OWN_ID = "567890abc9b0307bc0414164"
RULES = (
    FileRule(PROJECT, "a{n:02}.fastq", count=30, group_size=2, metadata={"sample_id": "S{group}"}),
    FileRule("other/one", "elsewhere.txt"),
    FileRule(PROJECT, "known_indels.vcf", id=OWN_ID),
)


async def _names(api, **query):
    answer = await api.call("GET", "/files", project=PROJECT, **query)
    return [file["name"] for file in answer.body["items"]], answer.headers["x-total-matching-query"]


async def test_files_are_listed_in_pages(start):
    api = await start(behaviour(files=RULES))
    names, total = await _names(api)
    assert (names[0], names[-1], total) == ("a00.fastq", "known_indels.vcf", "31")
    assert await _names(api, offset="29", limit="5") == (["a29.fastq", "known_indels.vcf"], "31")
    assert await _names(api, offset="31") == ([], "31")


async def test_files_are_found_by_name_and_metadata(start):
    api = await start(behaviour(files=RULES))
    query = [("project", PROJECT), ("name", "a07.fastq"), ("name", "known_indels.vcf"), ("name", "nothing")]
    path = "/files?" + "&".join("=".join(pair) for pair in query)
    found = (await api.call("GET", path)).body["items"]
    assert [file["name"] for file in found] == ["a07.fastq", "known_indels.vcf"]
    assert found[1]["id"] == OWN_ID
    assert await _names(api, **{"metadata.sample_id": "S3"}) == (["a06.fastq", "a07.fastq"], "2")
    assert await _names(api, name="a06.fastq", **{"metadata.sample_id": "S4"}) == ([], "0")
    assert await _names(api, name="elsewhere.txt") == ([], "0")


async def test_a_file_has_metadata(start):
    api = await start(behaviour(files=RULES))
    listed = (await api.call("GET", "/files", project=PROJECT, name="a05.fastq", fields="_all")).body["items"][0]
    assert listed["metadata"] == {"sample_id": "S2"}
    assert (await api.call("GET", f"/files/{listed['id']}")).body == listed
    bulk = await api.call("POST", "/bulk/files/get", {"file_ids": [listed["id"], "nothing", OWN_ID]})
    assert bulk.body["items"][0] == {"resource": listed}
    assert bulk.body["items"][1]["error"]["code"] == 5002
    assert bulk.body["items"][2]["resource"]["name"] == "known_indels.vcf"
    ids = {"file_ids": [OWN_ID]}
    named = [await api.call("POST", "/bulk/files/get", ids, fields=fields) for fields in ("resource.name", "name")]
    assert [one.body["items"][0]["resource"] for one in named] == [{"name": "known_indels.vcf"}, {}]


FOLDERS = (
    FileRule(PROJECT, "index.fa"),
    FileRule(PROJECT, "runs/S{group}/r{n}.fastq", count=4, group_size=2, metadata={"n": "{n}"}),
    FileRule(PROJECT, "runs/notes.txt", id=OWN_ID),
    FileRule("other/one", "runs/x"),
)


async def _inside(api, folder=None, **query):
    place = {"parent": folder["id"]} if folder else {"project": PROJECT}
    items = (await api.call("GET", "/files", fields="_all", **place, **query)).body["items"]
    return {item["name"]: item for item in items}


async def test_a_list_shows_the_root_or_what_is_in_one_folder(start):
    api = await start(behaviour(files=FOLDERS))
    root = await _inside(api)
    assert {name: file["type"] for name, file in root.items()} == {"index.fa": "file", "runs": "folder"}
    runs = await _inside(api, root["runs"])
    assert {name: file["type"] for name, file in runs.items()} == {
        "S0": "folder",
        "S1": "folder",
        "notes.txt": "file",
    }
    reads = await _inside(api, runs["S1"])
    assert list(reads) == ["r2.fastq", "r3.fastq"]
    assert {file["parent"] for file in reads.values()} == {runs["S1"]["id"]}
    assert (root["runs"]["parent"], runs["S1"]["parent"]) == (None, root["runs"]["id"])
    assert await _inside(api, name="r2.fastq") == {}
    assert list(await _inside(api, runs["S1"], name="r2.fastq")) == ["r2.fastq"]
    assert list(await _inside(api, runs["S1"], **{"metadata.n": "3"})) == ["r3.fastq"]
    for one in (runs["S1"], runs["notes.txt"], reads["r3.fastq"]):
        assert (await api.call("GET", f"/files/{one['id']}")).body == one


async def test_files_are_listed_by_project_or_by_folder_and_not_by_both(start):
    api = await start(behaviour(files=FOLDERS))
    root = await _inside(api)
    folder = root["runs"]["id"]
    assert error(await api.call("GET", "/files", project=PROJECT, parent=folder)) == (400, 90000)
    assert error(await api.call("GET", "/files", parent=root["index.fa"]["id"])) == (404, 5002)
    (elsewhere,) = (await api.call("GET", "/files", project="other/one")).body["items"]
    assert elsewhere["id"] != folder


@pytest.mark.parametrize("file_id", ["nothing", "0000000100000000000000ff", "00000003" + "0" * 16, "0000000100"])
async def test_other_files_do_not_exist(start, file_id):
    assert error(await (await start(behaviour(files=RULES))).call("GET", f"/files/{file_id}")) == (404, 5002)


async def test_files_belong_to_a_project(start):
    api = await start(behaviour(projects=(PROJECT,), files=RULES))
    assert error(await api.call("GET", "/files")) == (400, 90000)
    assert error(await api.call("GET", "/files", project="no/such")) == (404, 3002)


async def test_a_draft_with_an_unknown_file_cannot_be_run(start):
    api = await start(behaviour(files=RULES))
    good = await api.create(draft(inputs={"one": files(OWN_ID)[0], "deep": {"list": files(OWN_ID)}}))
    bad = await api.create(draft(inputs={"deep": {"list": files("lost")}}))
    assert (good["errors"], bad["errors"][0]["input_id"]) == ([], "deep")
    assert error(await api.run(bad)) == (400, 7024)


async def test_apps_have_inputs(start):
    app = App(APP, revision=2, inputs=(AppInput("reads", "File", required=True), AppInput("threads", "int")))
    api = await start(behaviour(apps=(app,)))
    shown = (await api.call("GET", f"/apps/{APP}")).body
    assert (shown["id"], shown["revision"], shown["project"]) == (f"{APP}/2", 2, PROJECT)
    assert shown["raw"]["inputs"] == [
        {"id": "#reads", "type": ["File"]},
        {"id": "#threads", "type": ["null", "int"]},
    ]
    assert (await api.call("GET", f"/apps/{APP}/2")).body == shown
    assert error(await api.call("GET", f"/apps/{APP}/1")) == (404, 6002)
    assert error(await api.call("GET", "/apps/owner/project/other")) == (404, 6002)
    assert len((await api.call("GET", "/apps", project=PROJECT)).body["items"]) == 1
    assert (await api.call("GET", "/apps", project="other/one")).body["items"] == []


async def test_any_app_exists_unless_some_are_named(start):
    api = await start()
    assert (await api.call("GET", f"/apps/{APP}/7")).body["revision"] == 7
    assert (await api.create(draft(app=f"{APP}/7")))["app"] == f"{APP}/7"


async def test_projects_are_listed(start):
    api = await start(behaviour(projects=(PROJECT, "other/one")))
    listed = (await api.call("GET", "/projects")).body["items"]
    assert [project["id"] for project in listed] == ["other/one", PROJECT]
    assert len((await api.call("GET", "/projects/owner")).body["items"]) == 1
    assert (await api.call("GET", f"/projects/{PROJECT}")).body["name"] == "project"
    assert error(await api.call("GET", "/projects/owner/nothing")) == (404, 3002)


async def test_the_user_is_told(start):
    assert (await (await start(behaviour(user="me"))).call("GET", "/user")).body["username"] == "me"
