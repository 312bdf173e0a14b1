"""Figures show the numbers they are given, on the scales they promise, in small files."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stm_models.figures import dataset, measured, moire, png
from stm_models.signal.similarity import Similarity, principal_components
from stm_models.tasks.inputs import Axes, RawMap

RNG = np.random.default_rng(0)
AXES = Axes((-7.0, 7.0, -8.0, 8.0), ("kx (1/a)", "ky (1/a)"))


def noisy(size):
    figure = Figure(figsize=(size / 100, size / 100))
    figure.subplots().imshow(RNG.random((size, size, 3)))
    return figure


def test_a_simple_figure_keeps_its_colours(tmp_path):
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, 1], color="#12ab34")
    path = png.save(figure, tmp_path / "a.png")
    with Image.open(path) as picture:
        assert picture.size == (300, 200)
        assert (0x12, 0xAB, 0x34) in {colour for _, colour in picture.convert("RGB").getcolors(10**6)}


def test_files_are_never_too_large(tmp_path):
    assert 20_000 < png.save(noisy(300), tmp_path / "a.png", 50_000).stat().st_size <= 50_000
    sheet = png.contact_sheet([noisy(200), noisy(200), noisy(300)], tmp_path / "sheet.png", 60_000)
    assert 20_000 < sheet.stat().st_size <= 60_000
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "sheet.png"}


def test_a_sheet_holds_every_figure(tmp_path):
    figures = []
    for colour in ("#ff0000", "#00ff00", "#0000ff"):
        figures.append(Figure(figsize=(10, 1), facecolor=colour))
    with Image.open(png.contact_sheet(figures, tmp_path / "sheet.png")) as sheet:
        colours = {colour for count, colour in sheet.convert("RGB").getcolors(10**6) if count > 50_000}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= colours


def test_images_share_one_scale_and_carry_marks():
    images = 10.0 ** RNG.uniform(-8, 0, (3, 2, 12, 12)) * np.array([1, 0.1, 0.01])[:, None, None, None]
    marks = [{"moiré": np.array([[0.5, 0.0], [0.0, 0.6]]), "graphene": np.array([[5.0, 5.0], [50.0, 0.0]])}] * 3
    figure = dataset.images(images, ["a", "b", "c"], rows={"E1": 0, "E2": 1}, axes=AXES, unit="1", marks=marks)
    panels = figure.axes[:9]  # two channels and the enlarged middle
    drawn = [panel.images[0] for panel in panels]
    assert len({picture.get_clim() for picture in drawn}) == 1
    low, high = drawn[0].get_clim()
    assert high - low == pytest.approx(5)
    assert high == pytest.approx(np.log10(images.max()))
    np.testing.assert_allclose(drawn[4].get_array(), np.log10(np.maximum(images[1, 1], 10**low)))
    assert [panel.get_title() for panel in panels[:3]] == ["a", "b", "c"]
    assert panels[6].get_xlim() == pytest.approx((-2.1, 2.1))
    # Outside of the window nothing is marked; the innermost only where it hides nothing.
    assert [len(kind.get_offsets()) for kind in panels[0].collections] == [1]
    assert [len(kind.get_offsets()) for kind in panels[6].collections] == [2, 1]


def test_images_without_marks_and_with_nothing_in_them():
    figure = dataset.images(np.zeros((1, 1, 4, 4)), ["a"], rows={"E": 0}, axes=AXES, unit="1")
    assert len(figure.axes) == 2  # one panel and the colour bar


def test_every_similarity_is_written_down():
    matrix = np.array([[1, 0.99987, -0.25], [0.99987, 1, 0.5], [-0.25, 0.5, 1]])
    figure = dataset.similarity_matrix(
        Similarity(matrix, np.ones(3), np.ones(3, np.int64)), np.array([0, 1.5, 6]), label="U", unit="eV"
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1.0000", ".9999", "-.2500", ".9999", "1.0000", ".5000", "-.2500", ".5000", "1.0000"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1.5", "6"]


def test_components_and_their_scores():
    found = principal_components(RNG.normal(size=(9, 2, 5, 5)) * np.array([1, 3])[:, None, None], 4)
    values = np.arange(9.0)
    figure = dataset.components(found, values, axes=AXES, label="U", unit="eV")
    assert len(figure.axes) == 6
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), found.patterns[1, 1])
    np.testing.assert_array_equal(figure.axes[4].lines[0].get_ydata(), found.scores[:, 1])
    assert "channel 1" in figure.axes[0].get_title()


def test_bands_within_the_window_of_both_spins():
    distance = np.linspace(0, 2, 5)
    up = np.array([-3.0, -0.5, 0.5, 3.0]) + 0.1 * np.cos(distance)[:, None]
    figure = moire.bands([moire.Bands("a", (up, up + 0.2))], distance, {0.0: "Γ", 2.0: "K"}, 1.0)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    np.testing.assert_array_equal([line.get_ydata() for line in lines], np.vstack([up[:, 1:3].T, up[:, 1:3].T + 0.2]))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["up", "down"]
    assert figure.axes[0].get_ylim() == (-1, 1)


def test_densities_and_maps():
    energy = np.linspace(-1, 1, 7)
    density = RNG.random((2, 7))
    figure = moire.densities_of_states(["a", "b"], energy, density, broadening=0.03, potentials=[0.5, 1.25])
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), density[1])
    assert "b, μ = 1.25 eV" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    points = RNG.uniform(-3, 3, (20, 2))
    figure = moire.ldos_maps(["a", "b"], [points] * 2, [np.arange(20.0), 5 * np.arange(20.0)], label="LDOS (states/eV)")
    drawn = [panel.collections[0] for panel in figure.axes[:2]]
    assert {kind.get_clim() for kind in drawn} == {(0, 95)}
    np.testing.assert_array_equal(drawn[0].get_offsets(), points)


def test_measured_maps_have_their_size():
    raw = RawMap(RNG.random((6, 8, 10)), (4.0, 5.0), None, "a")
    figure = measured.maps(raw, range(6), [str(i) for i in range(6)])
    assert figure.axes[5].images[0].get_extent() == [0, 5, 0, 4]
    assert figure.axes[5].get_xlabel() == "x (nm)"
    spectra = [RNG.random((8, 10)) * 10.0**i for i in range(6)]
    figure = measured.fourier(spectra, AXES, [str(i) for i in range(6)])
    assert len({panel.images[0].get_clim() for panel in figure.axes[:6]}) == 1
