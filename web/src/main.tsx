import "./fonts.css";
import "./look.css";
import "./make.css";
import "./styles.css";
import "./edit.css";
import "./operate.css";
import { render } from "preact";
import { Page } from "./page";

render(<Page />, document.getElementById("page")!);
