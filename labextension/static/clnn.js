// What clnn adds to JupyterLab 4: OpenCL C in its colours in the cells of the magic %%kernel, and stored pictures in place
// of sliders whose program has ended.
//
// It is written as a container of modules (what webpack calls module federation), the form in which JupyterLab loads
// extensions, so that it needs no building.
(() => {
  // JupyterLab colours a cell by the notebook's language and has no setting for one cell. The colours of C are laid over
  // those of Python where a cell begins with %%kernel.
  const WORDS = new RegExp(
    [
      /(?<comment>\/\/.*|\/\*[\s\S]*?(?:\*\/|$(?![\s\S])))/,
      /(?<string>"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)/,
      /(?<meta>^[ \t]*(?:#(?:\\\n|.)*|%%.*))/,
      /(?<number>\b(?:0x[\da-f]+|\d+\.?\d*(?:e[-+]?\d+)?|\.\d+)[ful]*)/,
      /(?<type>\b(?:void|bool|size_t|(?:float|double|half|u?char|u?short|u?int|u?long)(?:2|3|4|8|16)?)\b)/,
      /(?<keyword>\b(?:(?:__)?(?:kernel|global|local|constant|private)|__attribute__|const|restrict|volatile|unsigned)\b)/,
      /(?<word>\b(?:struct|typedef|static|inline|if|else|for|while|do|switch|case|default|break|continue|return|sizeof)\b)/,
      /(?<builtin>\b(?:get_\w+|barrier|mem_fence|v(?:load|store)\w+|as_\w+|convert_\w+|atomic_\w+|CLK_\w+)\b)/,
      /(?<operator>[-+*\/%=<>!&|^~?:]+)/,
      /(?<plain>[\w]+|[^\s\w])/,
    ].map((part) => part.source).join("|"),
    "gim"
  );
  const COLOURS = {
    comment: "comment-color); font-style: italic",
    string: "string-color)",
    meta: "meta-color)",
    number: "number-color)",
    type: "builtin-color)",
    keyword: "keyword-color); font-weight: bold",
    word: "keyword-color); font-weight: bold",
    builtin: "def-color)",
    operator: "operator-color); font-weight: bold",
    plain: "variable-color)",
  };

  function colours({ Decoration, ViewPlugin }, { Prec, RangeSetBuilder }) {
    const marks = {};
    for (const [name, style] of Object.entries(COLOURS)) {
      // What Python's colours left is reset first: its # begins a comment, in italics.
      const whole = `font-style: normal; font-weight: normal; color: var(--jp-mirror-editor-${style}`;
      marks[name] = Decoration.mark({ attributes: { style: whole } });
    }
    function decorate(view) {
      const found = new RangeSetBuilder(), text = view.state.doc.toString();
      if (/^%%kernel\b/.test(text))
        for (const match of text.matchAll(WORDS)) {
          const name = Object.keys(match.groups).find((key) => match.groups[key] !== undefined);
          found.add(match.index, match.index + match[0].length, marks[name]);
        }
      return found.finish();
    }
    const plugin = ViewPlugin.fromClass(
      class {
        constructor(view) { this.decorations = decorate(view); }
        update(update) { if (update.docChanged) this.decorations = decorate(update.view); }
      },
      { decorations: (value) => value.decorations }
    );
    return Prec.highest(plugin); // its marks then stand inside Python's, and the innermost colour is seen
  }

  // A notebook that was saved with sliders and is opened again has no program behind them: ipywidgets writes that the
  // model is not found, though a picture is stored beside it. This puts the picture there.
  function showStored(rendermime) {
    const create = rendermime.createRenderer.bind(rendermime);
    rendermime.createRenderer = (mime) => {
      const renderer = create(mime), render = renderer.renderModel.bind(renderer);
      renderer.renderModel = async (model) => {
        await render(model);
        const png = model.data["image/png"];
        if (!png || !renderer.node.textContent.startsWith("Error displaying widget")) return;
        const image = document.createElement("img");
        image.src = `data:image/png;base64,${png}`;
        renderer.node.replaceChildren(image);
      };
      return renderer;
    };
  }

  // A module that JupyterLab shares with its extensions, in whatever version it has
  let shared;
  async function load(name) {
    const versions = Object.values(shared[name]);
    return (await (versions.find((v) => v.loaded) || versions[0]).get())();
  }

  async function extension() {
    const [codemirror, view, state, notebook] = await Promise.all(
      ["@jupyterlab/codemirror", "@codemirror/view", "@codemirror/state", "@jupyterlab/notebook"].map(load)
    );
    const colouring = {
      id: "clnn:kernel-cells",
      description: "Colours OpenCL C in the cells of the magic %%kernel.",
      autoStart: true,
      requires: [codemirror.IEditorExtensionRegistry],
      activate: (app, registry) =>
        registry.addExtension({
          name: "clnn:kernel-cells",
          factory: () => codemirror.EditorExtensionRegistry.createImmutableExtension(colours(view, state)),
        }),
    };
    const pictures = {
      id: "clnn:stored-pictures",
      description: "Shows the stored picture where a widget's program has ended.",
      autoStart: true,
      requires: [notebook.INotebookTracker],
      activate: (app, tracker) => {
        tracker.forEach((panel) => showStored(panel.content.rendermime));
        tracker.widgetAdded.connect((_, panel) => showStored(panel.content.rendermime));
      },
    };
    return () => ({ __esModule: true, default: [colouring, pictures] });
  }

  (window._JUPYTERLAB = window._JUPYTERLAB || {}).clnn = { init: (scope) => { shared = scope; }, get: extension };
})();
