// What is wrong with how a widget lies on the page, as sentences: text cut off, boxes that overlap, contrast below 4.5, taller than the view.
(widget, [height, lowest]) => {
    const faults = [];
    const box = widget.getBoundingClientRect();
    if (height && box.height > height) faults.push(`${Math.round(box.height)} pixels high where ${Math.round(height)} show`);
    if (widget.scrollWidth > widget.clientWidth + 1) faults.push(`wider than its place by ${widget.scrollWidth - widget.clientWidth}`);

    // every piece of text with its place, as it is drawn
    const seen = element => element.checkVisibility({visibilityProperty: true, opacityProperty: false});
    const pieces = [];
    const texts = document.createTreeWalker(widget, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const parent = node.parentElement;
        if (!node.textContent.trim() || ['STYLE', 'TITLE', 'title', 'TEXTAREA'].includes(parent.tagName) || !seen(parent)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const place of range.getClientRects()) if (place.width > 1) pieces.push({node, parent, place, text: node.textContent.trim().slice(0, 40)});
    }
    const within = (inner, outer) =>
        inner.left >= outer.left - 1 && inner.right <= outer.right + 1 && inner.top >= outer.top - 3 && inner.bottom <= outer.bottom + 3;
    for (const {parent, place, text} of pieces) {
        for (let each = parent; each && each !== widget.parentElement; each = each.parentElement) {
            const style = getComputedStyle(each);
            const scrolls = ['auto', 'scroll'].includes(style.overflowX);
            if (scrolls) break;
            const cuts = each.tagName === 'BUTTON' || each === widget || ['hidden', 'clip'].includes(style.overflowX) && each.tagName !== 'svg';
            if (cuts && !within(place, each.getBoundingClientRect())) { faults.push(`“${text}” is cut off by ${each.tagName} ${each.className}`); break; }
        }
    }

    // no text on another, and none under a control
    const controls = Array.from(widget.querySelectorAll('button, input, textarea')).filter(seen);
    const boxes = [
        ...pieces.map(piece => ({...piece, owner: piece.node})),
        ...controls.map(control => ({place: control.getBoundingClientRect(), text: control.tagName, owner: control})),
    ];
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
        if (a.owner === b.owner || a.owner.contains?.(b.owner) || b.owner.contains?.(a.owner)) return;
        const across = Math.min(a.place.right, b.place.right) - Math.max(a.place.left, b.place.left);
        const down = Math.min(a.place.bottom, b.place.bottom) - Math.max(a.place.top, b.place.top);
        // lines of text touch by a few pixels of their line height, which have no ink
        if (across > 2 && down > 5) faults.push(`“${a.text}” and “${b.text}” overlap by ${Math.round(across)} × ${Math.round(down)}`);
    }));

    // contrast, as the Web Content Accessibility Guidelines have it, over all grounds up to the page
    const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const read = colour => {  // red, green, blue, alpha
        pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
    const ground = element => {
        if (!element) return [255, 255, 255];
        const colour = read(getComputedStyle(element).backgroundColor);
        return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(element.parentElement));
    };
    const light = colour => {
        const [r, g, b] = colour.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const weakest = new Map();
    for (const {parent, text} of pieces) {
        if (parent.closest('[disabled], :disabled')) continue;  // the guidelines ask nothing of what rests
        const style = getComputedStyle(parent), under = ground(parent);
        const ink = read(parent.namespaceURI.endsWith('svg') ? style.fill : style.color);
        ink[3] *= Number(style.opacity);
        const [a, b] = [light(over(ink, under)), light(under)].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < lowest) weakest.set(text, contrast);
    }
    for (const [text, contrast] of weakest) faults.push(`“${text}” has a contrast of ${contrast.toFixed(1)}`);
    return [...new Set(faults)];
}
