import pickle
from pathlib import Path

import pytest

from models import load_card, load_catalogue
from models.catalogue import card_names
from router.errors import CatalogueError

CARD = """\
id: mine
family: sdxl
role: base
source: {local: weights}
latent_space: sdxl
steps: 12
"""


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(CARD)
    return path


@pytest.mark.parametrize("name", card_names())
def test_every_shipped_card_is_valid(name: str) -> None:
    """The cards in the package load, say their licence and describe themselves."""
    card = load_card(name)
    assert card.licence != "unknown"
    assert card.description
    assert card.card_path.endswith(f"{name}.yaml")


def test_one_policy_serves_both_families() -> None:
    """Embedded and real cards stand behind the same catalogue ids, and chains are possible in both."""
    names = {
        "embedded": {
            "sd15": "sd15",
            "sdxl": "sdxl",
            "sdxl-refiner": "sdxl-refiner",
            "flux": "flux",
            "alignment": "alignment",
        },
        "real": {
            "sd15": "sd15",
            "sdxl": "sdxl",
            "sdxl-refiner": "sdxl-refiner",
            "flux": "flux-dev",
            "alignment": "clip-alignment",
        },
    }
    for family, cards in names.items():
        catalogue = load_catalogue({model: f"{family}/{card}" for model, card in cards.items()})
        assert list(catalogue.ids()) == list(cards)
        assert all(catalogue[model].id == model for model in catalogue)
        assert catalogue["sdxl"].latent_space == catalogue["sdxl-refiner"].latent_space
        spaces = {catalogue[model].latent_space for model in ("sd15", "sdxl", "flux")}
        # The embedded SD1.5 and SDXL share one VAE; the published ones do not.
        assert len(spaces) == (2 if family == "embedded" else 3)


def test_the_catalogue_id_is_the_mappings_key() -> None:
    """A card serves under the name that the serve config gives it."""
    assert load_catalogue({"flux": "real/flux-schnell"})["flux"].id == "flux"


def test_paths_in_shipped_cards_start_at_the_package() -> None:
    """Embedded weights are found from any working directory."""
    assert Path(str(load_card("embedded/sd15").source["local"])).parts[-3:] == ("embedded", "weights", "sd15")
    assert Path(str(load_card("embedded/sd15").source["local"])).is_absolute()


def test_paths_in_other_cards_start_at_the_card(card_file: Path) -> None:
    """A card beside its weights can be moved together with them."""
    assert load_card(card_file).source["local"] == str(card_file.parent / "weights")


def test_overrides_replace_any_key(tmp_path: Path) -> None:
    """A serve config can put local weights and other defaults behind a shipped card."""
    entry = {"card": "real/sdxl", "overrides": {"source": {"local": str(tmp_path)}, "steps": 20, "dtype": "bfloat16"}}
    card = load_catalogue({"sdxl": entry})["sdxl"]
    assert (dict(card.source), card.steps, card.dtype) == ({"local": str(tmp_path)}, 20, "bfloat16")
    assert card.licence == "CreativeML-OpenRAIL++-M"


def test_cards_travel_between_processes(card_file: Path) -> None:
    """A catalogue survives pickling, since it is handed to workers."""
    catalogue = load_catalogue({"mine": str(card_file)})
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 12", "stepz: 12", "mine.yaml:6: unknown key 'stepz'; did you mean 'steps'"),
        ("steps: 12", "steps: many", "mine.yaml:6: steps: Input should be a valid integer"),
        ("steps: 12", "steps: 500", "mine.yaml:6: 'steps' 500 is above 'max_steps' 150"),
        ("steps: 12", "role: base", "mine.yaml:6: key 'role' is given twice"),
        ("steps: 12", "steps: [", "mine.yaml:7: not valid YAML"),
        ("steps: 12", "guidance_scale: .nan", "mine.yaml:6: guidance_scale"),
        ("family: sdxl", "family: sdxxl", "mine.yaml:2: unknown family 'sdxxl'; did you mean 'sdxl'"),
        ("family: sdxl", "family: zimage", "mine.yaml:2: unknown family 'zimage'; did you mean 'z-image'"),
        ("role: base", "role: scorer", "family 'sdxl' has no role 'scorer'"),
        ("id: mine\n", "", "mine.yaml:1: key 'id' is missing"),
        ("{local: weights}", "{locale: weights}", "mine.yaml:4: unknown key 'locale'; did you mean 'local'"),
        ("{local: weights}", "{local: a, hub: b/c}", "mine.yaml:4: give exactly one of 'hub'"),
        ("{local: weights}", "{file: model.ckpt}", "mine.yaml:4: 'file: model.ckpt': only .safetensors is read"),
        ("{local: weights}", "!!python/object:os.system {}", "mine.yaml:4: not valid YAML"),
        (CARD, "- a\n- b\n", "mine.yaml:1: a model card is a mapping"),
    ],
)
def test_broken_cards_name_file_line_and_the_nearest_key(card_file: Path, old: str, new: str, message: str) -> None:
    """Every mistake in a card is one line `file:line: message`, with a suggestion where a word is nearly right."""
    card_file.write_text(CARD.replace(old, new))
    with pytest.raises(CatalogueError) as caught:
        load_card(card_file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            {"flux": "real/flux-shnell"},
            "model 'flux': there is no card 'real/flux-shnell'; did you mean 'real/flux-schnell'",
        ),
        ({"flux": "nowhere.yaml"}, "model 'flux': there is no card file nowhere.yaml"),
        ({"flux": {"card": "real/flux-dev", "override": {}}}, "unknown key 'override'; did you mean 'overrides'"),
        ({"flux": {"card": "real/flux-dev", "overrides": {"stepz": 1}}}, "unknown key 'stepz'; did you mean 'steps'"),
        ({"flux": {"overrides": {}}}, "'card' is missing"),
        (
            {"sdxl": {"card": "real/sdxl", "guests": ["sdxl-turbos"]}, "sdxl-turbo": "real/sdxl-turbo"},
            "model 'sdxl': guests: there is no model 'sdxl-turbos'; did you mean 'sdxl-turbo'",
        ),
        (
            {"sdxl": {"card": "real/sdxl", "guests": ["sd15"]}, "sd15": "real/sd15"},
            "'sd15' has another latent_space ('sd15', not 'sdxl')",
        ),
        (
            {"flux": {"card": "real/flux-dev", "guests": ["fast"]}, "fast": "real/flux-schnell"},
            "'flux' is a base of family 'flux'",
        ),
        (
            {"sdxl": {"card": "real/sdxl", "guests": ["late"]}, "late": "real/sdxl-refiner"},
            "'late' is a refiner of family 'sdxl'",
        ),
        ({"sdxl": {"card": "real/sdxl", "guests": ["sdxl"]}}, "'sdxl' is there already"),
        ({"sdxl": {"card": "real/sdxl", "guests": "turbo"}}, "'guests' is a list of catalogue ids, such as [turbo]"),
    ],
)
def test_broken_catalogues_name_the_model(models: dict[str, object], message: str) -> None:
    """A mistake in the serve config names the catalogue id and proposes the nearest word."""
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(models)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_guests_are_said_by_the_catalogue() -> None:
    """A model of the same latent space may be a guest, under the id that it has in this catalogue."""
    models = {"sdxl": {"card": "real/sdxl", "guests": ["quick"]}, "quick": "real/sdxl-turbo"}
    catalogue = load_catalogue(models)
    assert (catalogue["sdxl"].guests, catalogue["quick"].guests) == (("quick",), ())


def test_an_unknown_model_proposes_the_nearest() -> None:
    """Looking up 'flx' says: did you mean 'flux'."""
    with pytest.raises(CatalogueError, match="did you mean 'flux'"):
        load_catalogue({"flux": "embedded/flux"})["flx"]


def test_every_family_of_a_card_can_be_loaded() -> None:
    """The families that a card may name are those that draw, here or elsewhere, and those that score, each with its
    class."""
    from models import scoring
    from models.families import FAMILIES, REMOTE, ROLES, SCORERS

    assert set(ROLES) == {*FAMILIES, *SCORERS, REMOTE}
    assert set(SCORERS) == set(scoring.SCORERS)
